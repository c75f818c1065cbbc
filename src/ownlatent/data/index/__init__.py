"""What lies where in folders, archives and tables: found once, kept between runs, and read without copies."""
