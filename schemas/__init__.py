"""The event contract with the producer: models, published schemas, golden samples."""
