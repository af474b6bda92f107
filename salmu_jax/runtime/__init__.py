"""The foundation of all packages: processes, files, locks, devices, the work directory. It imports nothing above it."""
