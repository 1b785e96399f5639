-- What migration 0002 ran on postgresql in its first form, which kept the voices of participants in their own rows.

CREATE TABLE people (
    id VARCHAR(64) NOT NULL,
    name VARCHAR(200) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_people PRIMARY KEY (id),
    CONSTRAINT uq_people_name UNIQUE (name)
);

CREATE TABLE voice_prints (
    id SERIAL NOT NULL,
    person_id VARCHAR(64) NOT NULL,
    conversation_id VARCHAR(64),
    embedding BYTEA NOT NULL,
    model VARCHAR(200) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_voice_prints PRIMARY KEY (id),
    CONSTRAINT fk_voice_prints_conversation_id_conversations FOREIGN KEY(conversation_id) REFERENCES conversations (id) ON DELETE SET NULL,
    CONSTRAINT fk_voice_prints_person_id_people FOREIGN KEY(person_id) REFERENCES people (id) ON DELETE CASCADE
);

CREATE INDEX ix_voice_prints_conversation_id ON voice_prints (conversation_id);

CREATE INDEX ix_voice_prints_person_id ON voice_prints (person_id);

ALTER TABLE participants ADD COLUMN person_id VARCHAR(64) CONSTRAINT fk_participants_person_id_people REFERENCES people (id) ON DELETE SET NULL;

ALTER TABLE participants ADD COLUMN voice BYTEA;

CREATE INDEX ix_participants_person_id ON participants (person_id);

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';
