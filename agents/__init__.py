"""Controllers for kasmina_env: scripted, searched and learned, and how to compare them."""
