"""Benchmarks: ``python -m benchmarks`` measures the relay beside its peers and prints one table.

programs   builds the C programs in c/ (load generators, the ideal relay) and runs a generator
servers    starts and ends what is measured: the relay in its variants, the yardsticks, the peers
work       the pieces of work: which servers take part, which generator, which figures
results    the figures of all rounds, and the targets as ratios of them
report     the table and the JSON file; plot draws the SVG; machine says what it was measured on
cluster    two relays over NATS, with a table of its own

work_per_message is a program of its own: it counts system calls and Python calls a message, against work.toml.
"""
