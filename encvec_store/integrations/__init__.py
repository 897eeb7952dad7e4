"""encvec_store inside other people's libraries, one package for each. Nothing else imports this room."""
