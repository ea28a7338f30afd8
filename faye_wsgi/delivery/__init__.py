"""How publications reach the connections and functions of one process.

A file here takes what a broker's feed brings, and hands it to subscribers. It knows the broker's
contract and the outbox of a connection, and neither a request nor an engine.
"""
