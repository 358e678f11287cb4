"""Who the tenants are and what they may do; how one is made, upgraded, saved and removed."""
