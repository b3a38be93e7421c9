"""Commands about models: checking, listing, downloading and converting them."""
