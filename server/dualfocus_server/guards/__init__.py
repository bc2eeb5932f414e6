"""What keeps the server up and in order: keys, admission, limits, errors, the watchdog."""
