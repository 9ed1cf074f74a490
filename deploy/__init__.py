"""How the service is run on servers and clusters."""
