"""The PostgreSQL server that the bench is tested on."""
