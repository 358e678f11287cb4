"""The same fleet on Kubernetes: Tenants as objects, cells as Knative Services, checks."""
