"""The targets: each file has ``check(data)``, which raises on a defect only."""
