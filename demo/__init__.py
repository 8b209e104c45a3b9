"""`make demo`: the whole service on this machine, a real dataset, a real model, and what was picked."""
