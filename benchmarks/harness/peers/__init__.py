"""The servers that nearfar is compared with: their packages, patches and commands."""
