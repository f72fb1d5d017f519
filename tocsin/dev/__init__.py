"""What only `make up` needs: an embedded PostgreSQL, catchers of mail and push, demo people and pages."""
