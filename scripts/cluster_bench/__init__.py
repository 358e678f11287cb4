"""`make bench-cluster`: a fleet on Kubernetes, measured beside stock servers on Knative."""
