"""nearfar as a service of the system's own: systemd's or launchd's, a user's or the whole machine's.

``order`` says what is wanted, ``systemd`` and ``launchd`` how that is written and told, ``environment`` keeps the
secrets out of it, and ``installing`` does it. Nothing here knows click, models or HTTP.
"""
