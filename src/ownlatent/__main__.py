from ownlatent.cli import main

main()
