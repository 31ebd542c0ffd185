"""What runs beside the services on Kubernetes: programs that speak its API. No service imports anything from here."""
