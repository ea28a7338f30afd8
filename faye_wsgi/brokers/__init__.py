"""What carries channels' messages from process to process: one contract, an engine a file.

A file here knows nothing of connections, hubs or greenlets: it is called, blocks its caller, and
returns. Only the file of an engine imports that engine's client.
"""
