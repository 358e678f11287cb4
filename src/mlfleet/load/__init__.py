"""Load on a fleet, and the proof that it kept what it acknowledged."""
