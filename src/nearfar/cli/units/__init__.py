"""nearfar as a service of systemd or launchd. No click, models or HTTP."""
