"""Does a channel lose a message without a word? Real servers, faults, and a check of all records.

A round starts Redis and gunicorn's workers, publishes from several processes, and has a crowd of
clients that are cut and resume, while a seeded schedule does harm to everything. Each publisher
notes what it sent and what it was told, each client what came in what order. ``check.py`` compares
the two, afterwards and without I/O.

    python -m tests.soak --seconds 3600             rounds of all setups, one after the other
    python -m tests.soak --setup durable --seed 7   one round again
"""
