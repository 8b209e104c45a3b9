"""The client of the service: what a program or a shell needs to submit jobs and use their subsets.

It needs neither the service's packages nor the workers', and imports nothing of either.
"""
