"""The emulator's HTTP server: connections, who may call, which operation a request is, the emulator's own routes."""
