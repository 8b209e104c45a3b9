"""The state machine of everything that a worker runs: jobs, datasets, previews, and the shards and parts of jobs.

::

                     claim                                  finish
    (insert) ──► QUEUED ─────────────► RUNNING, held ─────────────────► SUCCEEDED | FAILED | CANCELLED
                  ▲ ▲ ▲                 │  │  │   ▲
                  │ │ └── hand_back ────┘  │  │   └── extend: each second, with the progress
                  │ │     the worker ends  │  │
                  │ └──── postpone ────────┘  │ park_job: jobs only
                  │       the store is away   ▼
                  └────── wake ──────── RUNNING, parked: nobody holds the lease,
                          all units are      shards or parts are worked on
                          done, or one failed

    request_cancel      QUEUED or parked ──► CANCELLED at once; of a held row the worker hears with its next heartbeat
    reclaim_expired     held, and the worker silent ──► QUEUED; FAILED after `max_attempts` workers died on the row
    deadlines.enforce   an open job past its timeout ──► FAILED

Each arrow is one conditional UPDATE in Postgres, by Postgres's clock. Two numbers keep latecomers out: a claim names
the dispatch that it takes, and a worker's statements name the lease token that it got with its claim.

`leases` has the arrows of every row, `turns` says which row a worker claims, and `parking` has the arrows of rows that
wait for rows of their own. `deadlines`, `deletion`, `quotas` and `sketch_use` say what may not go on, be deleted,
begin, or be deleted while a job runs. `counts` and `fleet` tell what has ended, what waits and who works.
"""
