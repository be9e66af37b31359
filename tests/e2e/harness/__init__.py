"""What the end-to-end tests stand on: a scripted upstream, a real Envoy, and a client that sends exact bytes."""
