"""Where runs are kept besides their folders: an MLflow store, or none.

`record` collects what a run measures and hands it to a `Tracker` (`base`) in batches. `MlflowTracker` writes it down in
the run's folder (`outbox`). A process beside the run (`follower`, started by `uploader`) watches the size of that file
and delivers from there (`delivery`; into sqlite and PostgreSQL many rows at once, `database`), so that a slow store, or
one that cannot be reached, delays no training and loses nothing. Each entry is delivered once. What could not be
delivered, the end of a sweep or `python -m pde_train.sync` delivers later.

`reading` reads a store, for the study. `store_files` knows a store's database and the folders beside it. `uris` takes
addresses of stores apart and masks their secrets.
"""
