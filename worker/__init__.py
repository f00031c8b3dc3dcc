"""Runs the jobs: claims queued runs, starts a supervisor for each, reads their events into the database."""
