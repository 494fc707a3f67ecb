"""For people with a service: files of features, the compatibility check, a gallery that knows its models."""
