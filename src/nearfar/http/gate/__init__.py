"""Which requests may enter: keys, hosts, web pages' origins, and none during a shutdown."""
