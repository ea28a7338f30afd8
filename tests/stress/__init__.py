"""What must hold under load: sizes, crowds, misbehaviour, leaks and restarts, on real servers."""
