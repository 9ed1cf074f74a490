"""Speed of the server beside others, and its reliability under load."""
