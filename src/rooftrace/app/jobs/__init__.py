"""The page of jobs; `jobs_page` gives its router."""

from rooftrace.app.jobs.router import jobs_page

__all__ = ["jobs_page"]
