"""External servers, and the connections to them."""
