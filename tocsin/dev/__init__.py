"""The development environment of `make up`: an embedded PostgreSQL, catchers of mail and push, demo people, pages."""
