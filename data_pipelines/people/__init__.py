"""Makes the people of the full-size data set: names, cities, jobs and numbers that fit their looks, and are nobody's."""
