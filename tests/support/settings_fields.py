"""A value for every setting, as each of the four places spells it."""

from __future__ import annotations

KEY = "a-key-that-must-stay-secret"

# Every field of Settings but models: the text of its variable, its line of TOML, and the value of both.
FIELDS = {
    "engine": ("fake", 'engine = "fake"', "fake"),
    "device": ("cuda", 'device = "cuda"', "cuda"),
    "dtype": ("bfloat16", 'dtype = "bfloat16"', "bfloat16"),
    "host": ("127.0.0.2", 'host = "127.0.0.2"', "127.0.0.2"),
    "port": ("9001", "port = 9001", 9001),
    "api_key": (KEY, f'api_key = "{KEY}"', KEY),
    "api_keys_file": ("keys.toml", 'api_keys_file = "keys.toml"', "keys.toml"),
    "no_auth": ("true", "no_auth = true", True),
    "allowed_hosts": (
        "a.test, *.b.test",
        'allowed_hosts = ["a.test", "*.b.test"]',
        ("a.test", "*.b.test"),
    ),
    "cors_origins": ("https://a.test", 'cors_origins = ["https://a.test"]', ("https://a.test",)),
    "offline": ("1", "offline = true", True),
    "hub_endpoint": ("http://hub.test", 'hub_endpoint = "http://hub.test"', "http://hub.test"),
    "cache_dir": ("a/cache", 'cache_dir = "a/cache"', "a/cache"),
    "threads": ("3", "threads = 3", 3),
    "verify": ("false", "verify = false", False),
    "on_overflow": ("error", 'on_overflow = "error"', "error"),
    "tls_cert_file": ("cert.pem", 'tls_cert_file = "cert.pem"', "cert.pem"),
    "tls_key_file": ("key.pem", 'tls_key_file = "key.pem"', "key.pem"),
    "log_format": ("json", 'log_format = "json"', "json"),
    "otlp_endpoint": ("http://trace.test:4318", 'otlp_endpoint = "http://trace.test:4318"', "http://trace.test:4318"),
    "trace_sample_ratio": ("0.25", "trace_sample_ratio = 0.25", 0.25),
    "max_body_bytes": ("1000", "max_body_bytes = 1_000", 1000),
    "max_inputs": ("100", "max_inputs = 100", 100),
    "max_answer_bytes": ("2000", "max_answer_bytes = 2_000", 2000),
    "root_path": ("/nearfar/", 'root_path = "/nearfar/"', "/nearfar"),
    "keep_alive_timeout_s": ("75", "keep_alive_timeout_s = 75", 75.0),
    "receive_timeout_s": ("5", "receive_timeout_s = 5", 5.0),
    "write_timeout_s": ("6", "write_timeout_s = 6", 6.0),
    "max_unread_bytes": ("3000", "max_unread_bytes = 3_000", 3000),
    "batch_tokens": ("64", "batch_tokens = 64", 64),
    "queue_tokens": ("128", "queue_tokens = 128", 128),
    "queue_requests": ("16", "queue_requests = 16", 16),
    "request_timeout_s": ("0.5", "request_timeout_s = 0.5", 0.5),
    "forward_timeout_s": ("9", "forward_timeout_s = 9", 9.0),
    "drain_timeout_s": ("2", "drain_timeout_s = 2", 2.0),
    "heartbeat_timeout_s": ("90", "heartbeat_timeout_s = 90", 90.0),
    "reload_timeout_s": ("60", "reload_timeout_s = 60", 60.0),
    "load": ("demand", 'load = "demand"', "demand"),
    "while_loading": ("refuse", 'while_loading = "refuse"', "refuse"),
    "memory_budget": ("8GB", 'memory_budget = "8GB"', "8GB"),
    "idle_timeout_s": ("600", "idle_timeout_s = 600", 600.0),
}
