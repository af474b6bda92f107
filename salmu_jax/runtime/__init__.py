"""What everything stands on: processes, files, locks, devices and the work directory. It imports nothing above it."""
