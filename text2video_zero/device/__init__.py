"""Where it is computed: devices, memory and its plan, offload, precision, compilation."""
