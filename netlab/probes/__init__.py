"""Ad-hoc eBPF probes: C in BCC's dialect in, DataFrames out."""
