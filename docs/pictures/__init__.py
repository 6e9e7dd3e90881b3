"""The pictures of the documentation, made from what the project does today: `make pictures`.

Run from the top of the repository: `python -m docs.pictures [NAME]…` makes those of docs/images that are named, or all.
It takes Chromium and Prometheus, which `.ci/run` installs.
"""
