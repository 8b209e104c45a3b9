"""What a job's result looks like: the numbers behind its figures, the figures, and a report to keep."""
