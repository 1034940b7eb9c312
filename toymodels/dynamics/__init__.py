"""What `toymodels.teacher` is made of: tasks and closed forms, students, their descent, and how it is read."""
