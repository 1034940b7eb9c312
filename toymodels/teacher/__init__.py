"""Teacher–student training dynamics (arXiv:2602.01045): tasks, students, their descent, and how it is read."""

from toymodels.teacher.config import TeacherConfig
from toymodels.teacher.result import TeacherResult
from toymodels.teacher.students import STUDENTS, Student
from toymodels.teacher.theory import Task

__all__ = ["STUDENTS", "Student", "Task", "TeacherConfig", "TeacherResult"]
