"""How tests have XLA compile for CPUs, and how long its fake devices wait for each other."""

# Most programs run once, and compiling them was most of the tests' time: LLVM is not to optimise, and loops are emitted
# directly, not by way of MLIR, and into one module. That is exact enough for all tests; those marked `optimised` run again
# in `make test-optimised`, compiled as users' programs are.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)

# XLA ends a process whose (fake) devices do not meet within 40 s, which threads of a busy machine may miss.
PATIENT = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120 --xla_cpu_collective_call_terminate_timeout_seconds=900"
)
