"""encvec_store inside other people's libraries, one package each; nothing here is imported by the rest."""
