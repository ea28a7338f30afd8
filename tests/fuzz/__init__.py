"""Fuzzing: bytes that a peer could send, and what must hold for all of them.

A target is a file in ``targets/`` with a function ``check(data: bytes) -> None``, which raises
on a defect only. ``corpus/`` has its seeds, which ``test_corpus.py`` replays in each test run.

    python -m tests.fuzz --seconds 60               all targets, each for a minute
    python -m tests.fuzz --seconds 600 hybi         one of them
    python -m tests.fuzz --sanitized                the compiled modules under ASan and UBSan

atheris finds new inputs, guided by the lines of the Python sources that they reach; where it is
not installed, the seeds are changed at random. What is found grows in ``build/fuzz/``.
"""
