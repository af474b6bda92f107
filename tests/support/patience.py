"""How long tests wait: long, since a busy machine is no error. Nothing asserts how fast anything is."""

DEADLINE = 900.0  # seconds for another process, or whatever else may hang

# XLA ends a process whose (fake) devices do not meet within 40 s, which threads of a busy machine may miss.
PATIENT_XLA = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120 --xla_cpu_collective_call_terminate_timeout_seconds=900"
)
