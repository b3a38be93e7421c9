"""Request bodies: receiving, inflating and decoding them."""
