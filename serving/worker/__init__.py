"""The process that holds the models of a device, and the server's connection to it."""
